// Every clock there is, also those of other processes and threads.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *name, clockid_t id) {
  struct timespec now, step;
  if (clock_gettime(id, &now) == 0 && clock_getres(id, &step) == 0)
    printf("%s %ld.%09ld step %ld\n", name, (long)now.tv_sec, now.tv_nsec, step.tv_nsec);
  else
    printf("%s: none\n", name);
}

int main(void) {
  char name[32];
  clockid_t other;
  for (int id = 0; id < 16; id++) {
    snprintf(name, sizeof name, "clock %d", id);
    tell(name, id);
  }
  if (clock_getcpuclockid(getppid(), &other) == 0) tell("of the parent", other);
  if (pthread_getcpuclockid(pthread_self(), &other) == 0) tell("of the thread", other);
  printf("clock() %ld\n", (long)clock());
  return 0;
}
