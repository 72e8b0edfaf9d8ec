// The cycle counter of the processor.
#include <stdio.h>
#include <x86intrin.h>

int main(void) {
  unsigned processor;
  unsigned long long first = __rdtsc(), second = __rdtsc();
  printf("rdtsc %llu %llu\n", first, second);
  printf("rdtscp %llu", __rdtscp(&processor));
  printf(" %u\n", processor);
  return second > first ? 0 : 1;
}
