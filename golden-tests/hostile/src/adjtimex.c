// The time of day as the call that tunes the clock tells it.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/timex.h>
#include <time.h>

int main(void) {
  struct timex tx = {0};
  int state = adjtimex(&tx);
  printf("adjtimex %s %ld.%06ld\n", state < 0 ? "refused" : "told", (long)tx.time.tv_sec, (long)tx.time.tv_usec);
  struct timex again = {0};
  state = clock_adjtime(CLOCK_REALTIME, &again);
  printf("clock_adjtime %s %ld.%06ld frequency %ld\n", state < 0 ? "refused" : "told", (long)again.time.tv_sec,
         (long)again.time.tv_usec, again.freq);
  return 0;
}
