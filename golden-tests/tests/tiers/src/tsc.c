// The cycle counter of the processor, also after asking for it.
#include <stdio.h>
#include <sys/prctl.h>
#include <x86intrin.h>

int main(void) {
  unsigned processor;
  printf("rdtsc %llu\n", __rdtsc());
  printf("then %llu\n", __rdtsc());
  printf("rdtscp %llu\n", __rdtscp(&processor));
  printf("processor %u\n", processor);
  prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
  printf("enabled %llu\n", __rdtsc());
  return 0;
}
