// Six workers take jobs from one queue; who took which is written down, in the order of completion.
#include <pthread.h>
#include <stdio.h>

#define JOBS 300

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static int ready, taken;

static void *work(void *me) {
  for (;;) {
    pthread_mutex_lock(&lock);
    while (taken == ready && ready < JOBS) pthread_cond_wait(&more, &lock);
    if (taken == JOBS) {
      pthread_mutex_unlock(&lock);
      return 0;
    }
    int job = taken++;
    pthread_mutex_unlock(&lock);
    volatile unsigned waste = 0;
    for (int i = 0; i < 50000 + job * 3700 % 90000; i++) waste += i;
    printf("worker %ld job %d\n", (long)me, job);
  }
}

int main(void) {
  pthread_t threads[6];
  for (long i = 0; i < 6; i++) pthread_create(&threads[i], 0, work, (void *)i);
  for (int job = 0; job < JOBS; job++) {
    pthread_mutex_lock(&lock);
    ready++;
    pthread_cond_signal(&more);
    if (ready == JOBS) pthread_cond_broadcast(&more);
    pthread_mutex_unlock(&lock);
  }
  for (int i = 0; i < 6; i++) pthread_join(threads[i], 0);
  return 0;
}
