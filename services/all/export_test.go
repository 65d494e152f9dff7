package all

import "example.com/keyline/pkg/embedded"

// Mailbox is where the shop's mails arrive; nil if they go elsewhere.
func (s *Shop) Mailbox() *embedded.Mailbox { return s.parts.mailbox }

// Dir is the folder of everything that is embedded.
func (s *Shop) Dir() string { return s.parts.dir }

// DatabaseURL is the database of one service.
var DatabaseURL = databaseURL
