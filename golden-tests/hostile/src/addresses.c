// Where things are.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static int data;

int main(void) {
  int stack;
  printf("code %p\n", (void *)main);
  printf("data %p\n", (void *)&data);
  printf("stack %p\n", (void *)&stack);
  printf("heap %p\n", malloc(10));
  printf("large %p\n", malloc(1 << 24));
  printf("map %p\n", mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  printf("libc %p\n", (void *)printf);
  return 0;
}
