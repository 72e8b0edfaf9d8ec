#include <stdio.h>
#include <string.h>

#include "words.h"

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--check") == 0)
		return greeting()[0] == 'h' ? 0 : 1;
	return puts(greeting()) < 0;
}
