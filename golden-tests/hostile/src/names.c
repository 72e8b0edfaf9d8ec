// Names for temporary files.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
  char made[] = "made.XXXXXX";
  close(mkstemp(made));
  printf("%s\n%s\n%s\n", tmpnam(0), tempnam("/work", "own"), made);
  return 0;
}
