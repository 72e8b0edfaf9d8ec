// Random numbers of the processor itself.
#include <immintrin.h>
#include <stdio.h>

int main(void) {
  for (int i = 0; i < 4; i++) {
    unsigned long long number;
    if (!_rdrand64_step(&number)) return 1;
    printf("%llx\n", number);
  }
  return 0;
}
