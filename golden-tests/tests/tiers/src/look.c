// Reads the clock while other threads read it, too, as often as they come to; then waits for a second by looking at it.
#include <pthread.h>
#include <stdio.h>
#include <time.h>

static volatile int done;

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void *look(void *name) {
  for (int count = 0; count < 4000 && !done; count++)
    now();
  return 0;
}

int main(void) {
  pthread_t threads[3];
  for (int at = 0; at < 3; at++)
    pthread_create(&threads[at], 0, look, 0);
  long long last = 0;
  for (int count = 0; count < 2000; count++)
    last = now();
  done = 1;
  for (int at = 0; at < 3; at++)
    pthread_join(threads[at], 0);
  printf("seen %lld\n", last);
  while (now() < last + 1000000000LL)
    ;
  printf("waited\n");
  return 0;
}
