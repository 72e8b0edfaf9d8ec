// So many processes, so many at once.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  int all = atoi(argv[1]), most = atoi(argv[2]), running = 0, ended = 0, refused = 0, ends[2];
  if (pipe(ends)) return 1;
  for (int i = 0; i < all; i++) {
    if (running == most) {
      // Lets one go on that waits.
      write(ends[1], "x", 1);
      if (wait(0) > 0) running--, ended++;
    }
    pid_t child = fork();
    if (child == 0) {
      char c;
      read(ends[0], &c, 1);
      _exit(0);
    }
    if (child > 0) running++;
    else refused++;
  }
  for (int i = 0; i < running; i++) write(ends[1], "x", 1);
  while (running > 0)
    if (wait(0) > 0) running--, ended++;
  printf("%d ended, %d refused\n", ended, refused);
  return 0;
}
