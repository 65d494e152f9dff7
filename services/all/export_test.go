package all

import "example.com/keyline/pkg/embedded"

// Mailbox is where the shop's mails arrive.
func (s *Shop) Mailbox() *embedded.Mailbox { return s.parts.mailbox }

// DatabaseURL is the database of one service.
func (s *Shop) DatabaseURL(service string) string { return s.parts.forService(service)["DATABASE_URL"] }

// Group is the consumer group of one service.
func (s *Shop) Group(service string) string { return s.parts.group(service) }
