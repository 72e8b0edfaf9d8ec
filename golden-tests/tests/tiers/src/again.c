// Timers with an interval, and what is left of others.
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static struct timespec start;

static long since(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
}

static void restart(void) { clock_gettime(CLOCK_MONOTONIC, &start); }

static volatile int calls;
static void handler(int signal) { calls++; }

static void milliseconds(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, 0); }

int main(void) {
  struct itimerspec ten = {{0, 10000000}, {0, 10000000}}, off = {{0, 0}, {0, 0}};
  uint64_t count;
  sigset_t blocked, none;
  sigemptyset(&none);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGALRM);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_BLOCK, &blocked, 0);
  signal(SIGALRM, handler);
  signal(SIGUSR1, handler);

  int fd = timerfd_create(CLOCK_MONOTONIC, 0);
  restart();
  timerfd_settime(fd, 0, &ten, 0);
  printf("timerfd-each");
  for (int i = 0; i < 5; i++) {
    read(fd, &count, 8);
    printf(" %lu", count);
  }
  printf("\ntimerfd-elapsed %ld\n", since());
  timerfd_settime(fd, 0, &ten, 0);
  milliseconds(105);
  read(fd, &count, 8);
  printf("timerfd-after-a-sleep %lu\n", count);
  timerfd_settime(fd, 0, &off, 0);

  restart();
  struct itimerval interval = {{0, 10000}, {0, 10000}};
  setitimer(ITIMER_REAL, &interval, 0);
  while (calls < 5) sigsuspend(&none);
  printf("setitimer %d %ld\n", calls, since());
  interval = (struct itimerval){{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &interval, 0);

  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  calls = 0;
  restart();
  timer_settime(timer, 0, &ten, 0);
  while (calls < 5) sigsuspend(&none);
  printf("posix %d %ld\n", calls, since());
  timer_settime(timer, 0, &ten, 0);
  milliseconds(105);
  sigtimedwait(&blocked, 0, &(struct timespec){0, 0});
  printf("overrun-after-a-sleep %d\n", timer_getoverrun(timer));
  timer_settime(timer, 0, &off, 0);

  struct itimerspec hundred = {{0, 0}, {0, 100000000}}, left;
  timer_settime(timer, 0, &hundred, 0);
  timer_gettime(timer, &left);
  printf("left %ld", (left.it_value.tv_nsec + 999999) / 1000000);
  milliseconds(40);
  timer_gettime(timer, &left);
  printf(" %ld", (left.it_value.tv_nsec + 999999) / 1000000);
  timer_settime(timer, 0, &off, 0);
  timer_gettime(timer, &left);
  printf(" %ld\n", left.it_value.tv_nsec / 1000000);

  sigprocmask(SIG_UNBLOCK, &blocked, 0);
  restart();
  interval = (struct itimerval){{0, 0}, {0, 30000}};
  setitimer(ITIMER_REAL, &interval, 0);
  struct timespec rest;
  int result = nanosleep(&(struct timespec){0, 100000000}, &rest);
  printf("interrupted %d %ld %ld\n", result, since(), (rest.tv_nsec + 999999) / 1000000);

  int quick = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  struct itimerspec twenty = {{0, 0}, {0, 20000000}};
  timerfd_settime(quick, 0, &twenty, 0);
  printf("read-nonblocking %ld\n", (long)read(quick, &count, 8));
  restart();
  struct pollfd one = {.fd = quick, .events = POLLIN};
  result = poll(&one, 1, 1000);
  printf("poll-timerfd %d %ld\n", result, since());
  return 0;
}
