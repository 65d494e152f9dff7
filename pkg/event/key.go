package event

import (
	"strconv"
	"unicode/utf8"
)

// KeyText shows a record's key to people and tools: as it is, or quoted as in Go if it is no
// UTF-8, so that no byte is lost.
func KeyText(key []byte) string {
	if utf8.Valid(key) {
		return string(key)
	}
	return strconv.Quote(string(key))
}

// ParseKey is the key that [KeyText] has shown.
func ParseKey(text string) []byte {
	if key, err := strconv.Unquote(text); err == nil && !utf8.ValidString(key) {
		return []byte(key)
	}
	return []byte(text)
}
