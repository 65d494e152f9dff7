// Command email runs the email service. Its variables are listed in README.md.
package main

import (
	"example.com/keyline/pkg/service"
	"example.com/keyline/services/email"
)

func main() { service.Main("email", email.Run) }
