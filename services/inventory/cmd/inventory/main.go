// Command inventory runs the inventory service. Its variables are listed in README.md.
package main

import (
	"example.com/keyline/pkg/service"
	"example.com/keyline/services/inventory"
)

func main() { service.Main("inventory", inventory.Run) }
