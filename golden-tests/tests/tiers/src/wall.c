// The time of day by libc and by the system calls themselves; the first argument is part of each name.
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timeb.h>
#include <time.h>
#include <unistd.h>

static const char *prefix;

static void tell(const char *name, long time) { printf("%s-%s %ld\n", prefix, name, time); }

int main(int argc, char **argv) {
  prefix = argv[1];
  struct timespec ts;
  struct timeval tv;
  clock_gettime(CLOCK_REALTIME, &ts);
  tell("clock_gettime", ts.tv_sec);
  clock_gettime(CLOCK_REALTIME_COARSE, &ts);
  tell("coarse", ts.tv_sec);
  clock_gettime(11, &ts);
  tell("tai", ts.tv_sec);
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &ts);
  tell("call-clock_gettime", ts.tv_sec);
  gettimeofday(&tv, 0);
  tell("gettimeofday", tv.tv_sec);
  syscall(SYS_gettimeofday, &tv, 0);
  tell("call-gettimeofday", tv.tv_sec);
  tell("time", time(0));
  tell("call-time", syscall(SYS_time, 0));
  timespec_get(&ts, TIME_UTC);
  tell("timespec_get", ts.tv_sec);
  return 0;
}
