// Package kafka publishes records, and hands those of a consumer group to a processor.
package kafka
