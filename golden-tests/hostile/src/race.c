// Four threads write lines as they come.
#include <pthread.h>
#include <stdio.h>

static void *work(void *name) {
  for (int line = 0; line < 200; line++) {
    volatile unsigned waste = 0;
    for (int i = 0; i < 20000; i++) waste += i;
    printf("%s %d\n", (const char *)name, line);
  }
  return 0;
}

int main(void) {
  static const char *names[] = {"a", "b", "c", "d"};
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, work, (void *)names[i]);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  return 0;
}
