// Command order runs the order service. Its variables are listed in README.md.
package main

import (
	"example.com/keyline/pkg/service"
	"example.com/keyline/services/order"
)

func main() { service.Main("order", order.Run) }
