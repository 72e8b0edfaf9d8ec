// The number of a mount as statx(2) gives it: the plain one, and, where that is asked for, the one that no other gets.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void look(const char *what, int directory, const char *path, int flags, unsigned mask) {
  struct statx s;
  memset(&s, 0xff, sizeof s);
  if (statx(directory, path, flags, mask, &s)) {
    printf("%s fails\n", what);
    return;
  }
  printf("%s %x %llu\n", what, s.stx_mask, (unsigned long long)s.stx_mnt_id);
}

int main(void) {
  const char *paths[] = {"/",         "/usr/bin/env", "/work",         "new",        "/tmp", "/dev/null",
                         "/proc", "/proc/self/status", "/proc/cpuinfo", "/etc/hosts", "/sys"};
  const unsigned masks[] = {0x7ff, 0x1fff, 0x4001, 0xffff};
  close(open("new", O_CREAT | O_WRONLY, 0644));
  // Twice: what was told once, a process knows.
  for (int time = 0; time < 2; time++) {
    for (unsigned m = 0; m < sizeof masks / sizeof *masks; m++) {
      for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        look(paths[i], AT_FDCWD, paths[i], 0, masks[m]);
        int file = open(paths[i], O_RDONLY);
        look(paths[i], file, "", AT_EMPTY_PATH, masks[m]);
        close(file);
      }
    }
  }
  unlink("new");
  return 0;
}
