// What this program has used.
#include <stdio.h>
#include <sys/resource.h>
#include <sys/times.h>
#include <time.h>

int main(void) {
  struct rusage usage;
  struct tms tms;
  struct timespec spent;
  volatile unsigned waste = 0;
  for (int i = 0; i < 30000000; i++) waste += i;
  getrusage(RUSAGE_SELF, &usage);
  printf("user %ld.%06ld system %ld.%06ld\n", (long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec,
         (long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec);
  clock_t ticks = times(&tms);
  printf("ticks %ld user %ld system %ld\n", (long)ticks, (long)tms.tms_utime, (long)tms.tms_stime);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  printf("process %ld.%09ld\n", (long)spent.tv_sec, spent.tv_nsec);
  return 0;
}
