package email

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	gomail "github.com/wneessen/go-mail"

	"example.com/keyline/pkg/inbox"
)

// The classes of what a mail server says, by code alone: its text may quote the recipient.
//
//	5xx                        permanent: it will say so again
//	421, a 4xx about itself,   unavailable: all mails wait, uncounted, for as long as it takes;
//	no connection              a server's bad hour is no reason for a dead letter
//	a 4xx about the recipient  an attempt: this order's mails wait, and no others. Greylisting
//	                           is that, and lasts minutes: hence Config.Attempts
//	a broken connection        unavailable, unless the server takes other mails meanwhile: then
//	                           it is this mail that breaks it, and an attempt
func (m *mailer) outcome(messageID string, err error) error {
	if err == nil {
		m.broken.taken(messageID)
		return nil
	}
	var answer *gomail.SendError
	if !errors.As(err, &answer) || answer.ErrorCode() == 0 {
		err := errors.New("the connection to the mail server broke")
		if m.broken.alone(messageID) {
			return err
		}
		return inbox.Unavailable(err)
	}
	err = fmt.Errorf("mail server answered %s", strings.TrimSpace(fmt.Sprint(answer.ErrorCode(), " ", answer.EnhancedStatusCode())))
	switch {
	case answer.ErrorCode() >= 500:
		return inbox.Permanent(err)
	case answer.ErrorCode() == 421 || !aboutRecipient(answer): // 421: closing (RFC 5321, section 4.2.3)
		return inbox.Unavailable(err)
	}
	return err
}

// aboutRecipient tells a passing refusal of one mail from a server that is in trouble: by the
// subject of its enhanced code (RFC 3463, section 3), else by the command that it refused.
func aboutRecipient(answer *gomail.SendError) bool {
	if answer.Reason == gomail.ErrSMTPMailFrom {
		return false // all mails have one sender
	}
	_, detail, _ := strings.Cut(answer.EnhancedStatusCode(), ".")
	switch subject, _, _ := strings.Cut(detail, "."); subject {
	case "1", "2", "6": // address, mailbox, content
		return true
	case "3", "4": // mail system, network and routing
		return false
	}
	return answer.Reason == gomail.ErrSMTPRcptTo
}

// broken remembers mails whose connection broke, to find the one that breaks it.
type broken struct {
	mu    sync.Mutex
	count int            // mails that the server has taken
	at    map[string]int // count when the mail's connection broke, by Message-ID
}

const maxBroken = 1000 // beyond it all are forgotten, which costs them an uncounted attempt

func (b *broken) taken(messageID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	delete(b.at, messageID)
}

// alone reports whether the server has taken other mails since this one last broke its
// connection, and notes that it did again.
func (b *broken) alone(messageID string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, again := b.at[messageID]
	if b.at == nil || len(b.at) >= maxBroken {
		b.at = map[string]int{}
	}
	b.at[messageID] = b.count
	return again && b.count > at
}
