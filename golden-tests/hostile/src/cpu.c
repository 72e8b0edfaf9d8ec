// Which processor this program runs on.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>

int main(void) {
  unsigned processor, node;
  getcpu(&processor, &node);
  printf("%d %u %u\n", sched_getcpu(), processor, node);
  return 0;
}
