package embedded

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"time"
)

const maxMailDepth = 5 // of multiparts within multiparts

// Mail is a mail as a recipient sees it.
type Mail struct {
	// ID is the Message-ID with its angle brackets; empty if there is none.
	ID string
	// From and To are the envelope's addresses.
	From string
	To   []string
	// Subject is decoded.
	Subject string
	// Text and HTML are the first parts of these types, decoded; empty if there is none.
	Text string
	HTML string
	// Headers are as they came; look them up with Get.
	Headers    mail.Header
	ReceivedAt time.Time
}

func readMail(raw []byte) (Mail, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return Mail{}, err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil {
		return Mail{}, fmt.Errorf("subject: %w", err)
	}
	m := Mail{
		ID:         msg.Header.Get("Message-Id"),
		Subject:    subject,
		Headers:    msg.Header,
		ReceivedAt: time.Now().UTC(),
	}
	contentType, encoding := msg.Header.Get("Content-Type"), msg.Header.Get("Content-Transfer-Encoding")
	return m, m.readPart(contentType, encoding, msg.Body, 0)
}

// readPart reads one part, and those within it.
func (m *Mail) readPart(contentType, encoding string, body io.Reader, depth int) error {
	if contentType == "" {
		contentType = "text/plain"
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("content type: %w", err)
	}
	if strings.HasPrefix(kind, "multipart/") {
		return m.readParts(multipart.NewReader(body, params["boundary"]), depth+1)
	}
	text, err := io.ReadAll(decoder(encoding, body))
	if err != nil {
		return fmt.Errorf("read %s: %w", kind, err)
	}
	switch {
	case kind == "text/plain" && m.Text == "":
		m.Text = string(text)
	case kind == "text/html" && m.HTML == "":
		m.HTML = string(text)
	}
	return nil
}

func (m *Mail) readParts(r *multipart.Reader, depth int) error {
	if depth > maxMailDepth {
		return errors.New("multiparts are nested too deeply")
	}
	for {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read multipart: %w", err)
		}
		err = m.readPart(part.Header.Get("Content-Type"), part.Header.Get("Content-Transfer-Encoding"), part, depth)
		if err != nil {
			return err
		}
	}
}

func decoder(encoding string, r io.Reader) io.Reader {
	switch strings.ToLower(encoding) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	default:
		return r
	}
}
