// Waits in every way at once; prints what ended, and after how many milliseconds. Each is due 100 ms after the one before,
// and they are started in the opposite order.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  TIMERFD = 1, SETITIMER, SIGNAL_TIMER, THREAD_TIMER, NANOSLEEP, POLL, PPOLL, EPOLL, EPOLL_PWAIT2, SELECT, PSELECT,
  FUTEX_RELATIVE, FUTEX_ABSOLUTE, CONDITION_REAL, CONDITION_MONOTONIC, SEMAPHORE, MUTEX, SIGTIMEDWAIT, SLEEP_ABSOLUTE,
  SEMTIMEDOP, MESSAGE_QUEUE, CHILD, ALARM
};
static const char *names[] = {
  "", "timerfd", "setitimer", "signal-timer", "thread-timer", "nanosleep", "poll", "ppoll", "epoll", "epoll-pwait2",
  "select", "pselect", "futex-relative", "futex-absolute", "condition-real", "condition-monotonic", "semaphore", "mutex",
  "sigtimedwait", "sleep-absolute", "semtimedop", "message-queue", "child", "alarm"
};

static struct timespec start_real, start;
static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
static int ends[2];

static long since(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
}

static void tell(int what) {
  pthread_mutex_lock(&printing);
  printf("%s %ld\n", names[what], since());
  fflush(stdout);
  pthread_mutex_unlock(&printing);
}

// From the start, on this clock.
static struct timespec at(int what, struct timespec from) {
  long ns = from.tv_nsec + what * 100000000L;
  return (struct timespec){from.tv_sec + ns / 1000000000, ns % 1000000000};
}

static struct timespec after(int what) {
  long ns = what * 100000000L - since() * 1000000;
  return (struct timespec){ns / 1000000000, ns % 1000000000};
}

static void notify(union sigval value) { tell(value.sival_int); }

static void *run(void *argument) {
  int what = (long)argument;
  struct timespec span = after(what), real = at(what, start_real), mono = at(what, start);
  long milliseconds = what * 100 - since();
  struct pollfd one = {.fd = ends[0], .events = POLLIN};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(ends[0], &set);
  int word = 0, many = epoll_create1(0), expired = 0;
  struct epoll_event event = {.events = EPOLLIN};
  epoll_ctl(many, EPOLL_CTL_ADD, ends[0], &event);
  switch (what) {
  case TIMERFD: {
    struct itimerspec value = {.it_value = mono};
    uint64_t count;
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &value, 0);
    expired = read(fd, &count, 8) == 8;
    break;
  }
  case NANOSLEEP: expired = nanosleep(&span, 0) == 0; break;
  case POLL: expired = poll(&one, 1, milliseconds) == 0; break;
  case PPOLL: expired = ppoll(&one, 1, &span, 0) == 0; break;
  case EPOLL: expired = epoll_wait(many, &event, 1, milliseconds) == 0; break;
  case EPOLL_PWAIT2: expired = syscall(SYS_epoll_pwait2, many, &event, 1, &span, 0, 0) == 0; break;
  case SELECT: {
    struct timeval value = {span.tv_sec, span.tv_nsec / 1000};
    expired = select(ends[0] + 1, &set, 0, 0, &value) == 0;
    break;
  }
  case PSELECT: expired = pselect(ends[0] + 1, &set, 0, 0, &span, 0) == 0; break;
  case FUTEX_RELATIVE:
    expired = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &span, 0, 0) == -1 && errno == ETIMEDOUT;
    break;
  case FUTEX_ABSOLUTE:
    expired = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &real, 0, -1) == -1 && errno == ETIMEDOUT;
    break;
  case CONDITION_REAL: case CONDITION_MONOTONIC: {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, what == CONDITION_REAL ? CLOCK_REALTIME : CLOCK_MONOTONIC);
    pthread_cond_init(&condition, &attributes);
    pthread_mutex_lock(&lock);
    expired = pthread_cond_timedwait(&condition, &lock, what == CONDITION_REAL ? &real : &mono) == ETIMEDOUT;
    break;
  }
  case SEMAPHORE: {
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    expired = sem_timedwait(&semaphore, &real) == -1 && errno == ETIMEDOUT;
    break;
  }
  case MUTEX: expired = pthread_mutex_timedlock(&held, &real) == ETIMEDOUT; break;
  case SIGTIMEDWAIT: {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    expired = sigtimedwait(&set, 0, &span) == -1 && errno == EAGAIN;
    break;
  }
  case SLEEP_ABSOLUTE: expired = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &real, 0) == 0; break;
  case SEMTIMEDOP: {
    struct sembuf take = {0, -1, 0};
    int id = semget(IPC_PRIVATE, 1, 0600);
    expired = semtimedop(id, &take, 1, &span) == -1 && errno == EAGAIN;
    semctl(id, 0, IPC_RMID);
    break;
  }
  case MESSAGE_QUEUE: {
    char buffer[64];
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 64};
    mqd_t queue = mq_open("/order", O_RDWR | O_CREAT, 0600, &attributes);
    expired = mq_timedreceive(queue, buffer, 64, 0, &real) == -1 && errno == ETIMEDOUT;
    mq_unlink("/order");
    break;
  }
  case CHILD: {
    pid_t child = fork();
    if (!child) {
      nanosleep(&span, 0);
      _exit(3);
    }
    int status;
    expired = waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3;
    break;
  }
  }
  if (!expired) printf("%s ended otherwise: %s\n", names[what], strerror(errno));
  tell(what);
  return 0;
}

static void *signals(void *argument) {
  sigset_t *set = argument;
  for (;;) {
    siginfo_t info;
    int signal = sigwaitinfo(set, &info);
    static int alarms;
    if (signal == SIGUSR1) tell(SIGNAL_TIMER);
    if (signal == SIGALRM) {
      tell(alarms++ ? ALARM : SETITIMER);
      if (alarms == 2) return 0;
      // alarm(2) knows whole seconds alone.
      long left = ALARM * 100 - since();
      struct itimerval value = {.it_value = {left / 1000, left % 1000 * 1000}};
      setitimer(ITIMER_REAL, &value, 0);
    }
  }
}

int main(void) {
  pthread_t thread, threads[64];
  int count = 0;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, 0);
  sigdelset(&set, SIGUSR2);
  if (pipe(ends)) return 1;
  pthread_mutex_lock(&held);
  clock_gettime(CLOCK_REALTIME, &start_real);
  clock_gettime(CLOCK_MONOTONIC, &start);
  pthread_create(&thread, 0, signals, &set);
  for (long what = CHILD; what >= TIMERFD; what--)
    if (what != SETITIMER && what != SIGNAL_TIMER && what != THREAD_TIMER)
      pthread_create(&threads[count++], 0, run, (void *)what);
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify, .sigev_value.sival_int = THREAD_TIMER};
  struct itimerspec value = {.it_value = at(THREAD_TIMER, start)};
  if (timer_create(CLOCK_MONOTONIC, &event, &timer)) perror("timer_create");
  timer_settime(timer, TIMER_ABSTIME, &value, 0);
  event = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  value.it_value = after(SIGNAL_TIMER);
  if (timer_create(CLOCK_REALTIME, &event, &timer)) perror("timer_create");
  timer_settime(timer, 0, &value, 0);
  struct itimerval once = {.it_value = {0, (SETITIMER * 100 - since()) * 1000}};
  setitimer(ITIMER_REAL, &once, 0);
  for (int i = 0; i < count; i++) pthread_join(threads[i], 0);
  pthread_join(thread, 0);
  return 0;
}
