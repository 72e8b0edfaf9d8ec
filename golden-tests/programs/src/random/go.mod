module example.org/random

go 1.19
