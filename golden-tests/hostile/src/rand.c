// The kernel's random numbers by every call of libc.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

static void tell(const char *name, const unsigned char *bytes) {
  printf("%s ", name);
  for (int i = 0; i < 16; i++) printf("%02x", bytes[i]);
  printf("\n");
}

int main(void) {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return 1;
  tell("getrandom", bytes);
  if (getrandom(bytes, sizeof bytes, GRND_RANDOM) != sizeof bytes) return 1;
  tell("GRND_RANDOM", bytes);
  if (getentropy(bytes, sizeof bytes) != 0) return 1;
  tell("getentropy", bytes);
  arc4random_buf(bytes, sizeof bytes);
  tell("arc4random", bytes);
  return 0;
}
