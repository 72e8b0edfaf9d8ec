#include <iostream>

int main(int argc, char **)
{
    std::cout << "words: " << argc - 1 << '\n';
}
