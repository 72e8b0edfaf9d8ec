// The machine in one system call.
#include <stdio.h>
#include <sys/sysinfo.h>

int main(void) {
  struct sysinfo s;
  if (sysinfo(&s)) return 1;
  printf("uptime %ld\nload %lu %lu %lu\n", s.uptime, s.loads[0], s.loads[1], s.loads[2]);
  printf("memory %lu free %lu buffers %lu shared %lu\n", s.totalram, s.freeram, s.bufferram, s.sharedram);
  printf("swap %lu %lu\nprocesses %u\n", s.totalswap, s.freeswap, s.procs);
  return 0;
}
