// Timers of every kind, and how long each took.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static struct timespec start;

static void tell(const char *name) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  long elapsed = (now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec;
  printf("%s %ld %s\n", name, elapsed, elapsed < 30000000 ? "too soon" : "in time");
  start = now;
}

static void nothing(int signal) { (void)signal; }

int main(void) {
  struct sigaction action = {.sa_handler = nothing};
  sigset_t blocked, none;
  sigemptyset(&none);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGALRM);
  sigaddset(&blocked, SIGUSR1);
  sigaction(SIGALRM, &action, 0);
  sigaction(SIGUSR1, &action, 0);
  // Blocked until it is waited for, so that none comes too early to be seen.
  sigprocmask(SIG_BLOCK, &blocked, 0);
  clock_gettime(CLOCK_MONOTONIC, &start);

  struct itimerspec thirty = {.it_value = {0, 30000000}};
  int fd = timerfd_create(CLOCK_MONOTONIC, 0);
  timerfd_settime(fd, 0, &thirty, 0);
  uint64_t times;
  if (read(fd, &times, sizeof times) != sizeof times) return 1;
  tell("timerfd");

  struct itimerval interval = {.it_value = {0, 30000}};
  setitimer(ITIMER_REAL, &interval, 0);
  sigsuspend(&none);
  tell("setitimer");

  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  timer_settime(timer, 0, &thirty, 0);
  sigsuspend(&none);
  tell("timer_create");

  nanosleep(&thirty.it_value, 0);
  tell("nanosleep");
  clock_nanosleep(CLOCK_REALTIME, 0, &thirty.it_value, 0);
  tell("clock_nanosleep");
  return 0;
}
