/* What a static program in C gets of time, randomness and what the kernel puts on its stack. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>

int main(void) {
  unsigned char bytes[8];
  struct timespec time;
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return 1;
  printf("bytes ");
  for (unsigned at = 0; at < sizeof bytes; at++) printf("%02x", bytes[at]);
  clock_gettime(CLOCK_REALTIME, &time);
  printf("\ntime %ld.%09ld\n", (long)time.tv_sec, time.tv_nsec);
  printf("year %d\n", 1900 + gmtime(&time.tv_sec)->tm_year);
  const unsigned char *given = (const unsigned char *)getauxval(AT_RANDOM);
  printf("given ");
  for (unsigned at = 0; at < 16; at++) printf("%02x", given[at]);
  printf("\nstack %p\n", (void *)&time);
  return 0;
}
