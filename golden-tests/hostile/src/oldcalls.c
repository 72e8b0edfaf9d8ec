// Calls that libc no longer makes: getdents, stat, lstat and fstat as they were first.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct old_entry {
  unsigned long inode, offset;
  unsigned short length;
  char name[];
};

static void tell(const char *call, const struct stat *s) {
  printf("%s inode %lu device %lx links %lu blocks %ld changed %ld.%09ld\n", call, (unsigned long)s->st_ino,
         (unsigned long)s->st_dev, (unsigned long)s->st_nlink, (long)s->st_blocks, (long)s->st_ctim.tv_sec,
         s->st_ctim.tv_nsec);
}

int main(int argc, char **argv) {
  if (argc < 3) return 1;
  int directory = open(argv[2], O_RDONLY | O_DIRECTORY);
  if (strcmp(argv[1], "getdents") == 0) {
    char buffer[1024];
    long count;
    while ((count = syscall(SYS_getdents, directory, buffer, sizeof buffer)) > 0)
      for (long at = 0; at < count;) {
        struct old_entry *entry = (struct old_entry *)(buffer + at);
        printf("%s\n", entry->name);
        at += entry->length;
      }
    return count < 0;
  }
  struct stat s;
  if (syscall(SYS_stat, argv[2], &s)) return 1;
  tell("stat", &s);
  if (syscall(SYS_lstat, argv[2], &s)) return 1;
  tell("lstat", &s);
  if (syscall(SYS_fstat, directory, &s)) return 1;
  tell("fstat", &s);
  return 0;
}
