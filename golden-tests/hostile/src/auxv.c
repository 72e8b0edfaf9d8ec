// What the kernel tells a program when it starts it.
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "random") == 0) {
    const unsigned char *bytes = (const unsigned char *)getauxval(AT_RANDOM);
    unsigned long canary;
    for (int i = 0; i < 16; i++) printf("%02x", bytes[i]);
    __asm__("mov %%fs:0x28, %0" : "=r"(canary));
    printf("\ncanary %lx\n", canary);
    return 0;
  }
  printf("hwcap %lx %lx\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
  printf("platform %s\n", (const char *)getauxval(AT_PLATFORM));
  printf("stack %lu\n", getauxval(51)); // AT_MINSIGSTKSZ: as large as the registers of this processor
  return 0;
}
