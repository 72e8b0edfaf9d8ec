// Every call that waits for something that does not come, and how long it waited.
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

static struct timespec start;

static void tell(const char *name, int result) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  long elapsed = (now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec;
  printf("%s %d %ld %s\n", name, result, elapsed, elapsed < 20000000 ? "too soon" : "in time");
  start = now;
}

int main(void) {
  int ends[2];
  if (pipe(ends)) return 1;
  clock_gettime(CLOCK_MONOTONIC, &start);

  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  struct timeval tv = {0, 20000};
  int result = select(ends[0] + 1, &set, 0, 0, &tv);
  tell("select", result);
  printf("left %ld.%06ld\n", (long)tv.tv_sec, (long)tv.tv_usec);

  struct timespec ts = {0, 20000000};
  FD_SET(ends[0], &set);
  tell("pselect", pselect(ends[0] + 1, &set, 0, 0, &ts, 0));

  struct pollfd one = {.fd = ends[0], .events = POLLIN};
  tell("poll", poll(&one, 1, 20));
  tell("ppoll", ppoll(&one, 1, &ts, 0));

  int many = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  epoll_ctl(many, EPOLL_CTL_ADD, ends[0], &event);
  tell("epoll_wait", epoll_wait(many, &event, 1, 20));

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR2);
  sigprocmask(SIG_BLOCK, &signals, 0);
  tell("sigtimedwait", sigtimedwait(&signals, 0, &ts));

  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  struct timespec until;
  pthread_mutex_lock(&lock);
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 20000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  result = pthread_cond_timedwait(&condition, &lock, &until);
  tell("condition", result == ETIMEDOUT);
  return 0;
}
