// What a static program in Go gets of time, randomness and scheduling.
package main

import (
	"crypto/rand"
	"fmt"
	"time"
)

func main() {
	bytes := make([]byte, 8)
	if _, err := rand.Read(bytes); err != nil {
		panic(err)
	}
	fmt.Printf("bytes %x\n", bytes)
	fmt.Println("time", time.Now().UnixNano())
	fmt.Println("year", time.Now().UTC().Year())
	order := ""
	for key := range map[int]bool{1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 9: true, 10: true} {
		order += fmt.Sprint(" ", key)
	}
	fmt.Println("order" + order)
	done := make(chan int)
	for at := 0; at < 8; at++ {
		go func(at int) { done <- at }(at)
	}
	race := ""
	for at := 0; at < 8; at++ {
		race += fmt.Sprint(" ", <-done)
	}
	fmt.Println("race" + race)
}
