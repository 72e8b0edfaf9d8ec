// Names and positions as a directory stream gives them.
#include <dirent.h>
#include <stdio.h>

int main(int argc, char **argv) {
  DIR *directory = argc > 1 ? opendir(argv[1]) : 0;
  if (!directory) return 1;
  for (struct dirent *entry; (entry = readdir(directory));)
    printf("%ld %s %d\n", telldir(directory), entry->d_name, entry->d_type);
  return 0;
}
