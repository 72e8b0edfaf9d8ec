// The handle of a file, which has its inode number in it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    int mount = 0;
    struct file_handle *handle = calloc(1, sizeof *handle + MAX_HANDLE_SZ);
    handle->handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(AT_FDCWD, argv[i], handle, &mount, 0)) {
      printf("%s: %s\n", argv[i], strerror(errno));
      continue;
    }
    printf("%s mount %d type %d ", argv[i], mount, handle->handle_type);
    for (unsigned at = 0; at < handle->handle_bytes; at++) printf("%02x", handle->f_handle[at]);
    printf("\n");
  }
  return 0;
}
