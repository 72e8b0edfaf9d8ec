// The inode numbers that directories give, and whether they are those of lstat.
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    DIR *directory = opendir(argv[i]);
    if (!directory) return 1;
    for (struct dirent *entry; (entry = readdir(directory));) {
      char path[4096];
      struct stat status;
      if (!strcmp(entry->d_name, "..")) continue;
      snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
      if (lstat(path, &status)) return 1;
      printf("%s %lu %s\n", path, (unsigned long)entry->d_ino,
             entry->d_ino == status.st_ino ? "same" : "other");
    }
    closedir(directory);
  }
  return 0;
}
