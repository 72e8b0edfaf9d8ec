// Addresses, and the random bytes that a program starts with.
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

int main(void) {
  int here;
  printf("main %p\nstack %p\nheap %p\nlibc %p\nrandom ", main, &here, malloc(10), puts);
  unsigned char *bytes = (unsigned char *)getauxval(AT_RANDOM);
  for (int i = 0; i < 16; i++) printf("%02x", bytes[i]);
  printf("\n");
  return 0;
}
