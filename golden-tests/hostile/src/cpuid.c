// What the processor says of itself: model, features, its own number, its brand.
#include <cpuid.h>
#include <stdio.h>

int main(void) {
  static const unsigned leaves[] = {0, 1, 4, 7, 0xb, 0xd, 0x80000002, 0x80000003, 0x80000004};
  for (unsigned i = 0; i < sizeof leaves / sizeof *leaves; i++) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid_count(leaves[i], 0, &a, &b, &c, &d);
    printf("%x: %08x %08x %08x %08x\n", leaves[i], a, b, c, d);
  }
  return 0;
}
