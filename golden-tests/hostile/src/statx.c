// Everything that statx tells.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    struct statx s;
    if (statx(AT_FDCWD, argv[i], 0, 0x17ff, &s)) return 1; // basic, btime, mount id
    printf("%s mask %x mount %llu inode %llu device %x:%x links %u blocks %llu\n", argv[i], s.stx_mask,
           (unsigned long long)s.stx_mnt_id, (unsigned long long)s.stx_ino, s.stx_dev_major,
           s.stx_dev_minor, s.stx_nlink, (unsigned long long)s.stx_blocks);
    printf("  born %lld.%09u changed %lld.%09u\n", (long long)s.stx_btime.tv_sec, s.stx_btime.tv_nsec,
           (long long)s.stx_ctime.tv_sec, s.stx_ctime.tv_nsec);
  }
  return 0;
}
