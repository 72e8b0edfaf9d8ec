#include "words.h"

const char *greeting(void)
{
	return "hello from a program that was compiled in a sandbox";
}
