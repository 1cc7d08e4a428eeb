package fallback

import (
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/messages/licensedv1"
)

const (
	// maxFormer is the size of the largest answer that is kept, in bytes.
	maxFormer = 64 << 10
	// formerOverhead is what an answer takes beside its key and content, in bytes, by estimate.
	formerOverhead = 250
	// formerAge is the time for which an answer is kept at most: data of customers whom nobody asks about
	// does not stay.
	formerAge = 24 * time.Hour
)

// formerAnswers keeps the last answer to each question, those asked last, in a number of bytes. Safe for concurrent
// use.
type formerAnswers struct {
	max int64

	mu    sync.Mutex
	all   *simplelru.LRU[string, former]
	bytes int64
}

// former is an answer.
type former struct {
	message  []byte
	sequence uint64
	at       time.Time
}

func newFormerAnswers(maxBytes int64) *formerAnswers {
	f := &formerAnswers{max: maxBytes}
	evicted := func(key string, a former) { f.bytes -= sizeOf(key, a) }
	f.all, _ = simplelru.NewLRU(int(max(1, maxBytes/formerOverhead)), evicted) // Its error is a size of 0.
	return f
}

func sizeOf(key string, a former) int64 { return int64(len(key) + len(a.message) + formerOverhead) }

// keyOf returns the key of a question.
func keyOf(customer string, q *licensedv1.Query) string {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append([]byte(customer), 0), q)
	if err != nil {
		panic(err) // Ids were checked to be UTF-8.
	}
	return string(b)
}

// add keeps an answer, if it is small enough.
func (f *formerAnswers) add(customer string, q *licensedv1.Query, a Answer) {
	m := messageOf(a.Value)
	if f.max == 0 || m == nil || !m.ProtoReflect().IsValid() {
		return
	}
	b, err := proto.Marshal(m)
	if err != nil || len(b) > maxFormer {
		return
	}
	key, kept := keyOf(customer, q), former{b, a.Head.Sequence, a.AsOf}
	f.mu.Lock()
	defer f.mu.Unlock()
	if there, ok := f.all.Peek(key); ok {
		if there.at.After(kept.at) {
			return
		}
		f.bytes -= sizeOf(key, there) // Add calls evicted for others only.
	}
	f.all.Add(key, kept)
	f.bytes += sizeOf(key, kept)
	for f.bytes > f.max {
		f.all.RemoveOldest()
	}
}

// get returns the last answer to a question, if it is not older than maxAge.
func (f *formerAnswers) get(
	customer string, q *licensedv1.Query, now time.Time, maxAge time.Duration,
) (Answer, bool) {
	if f.max == 0 {
		return Answer{}, false
	}
	key := keyOf(customer, q)
	f.mu.Lock()
	kept, ok := f.all.Get(key)
	if ok && now.Sub(kept.at) > formerAge {
		f.all.Remove(key)
		ok = false
	}
	f.mu.Unlock()
	m, value := answerTo(q)
	if !ok || now.Sub(kept.at) > maxAge || m == nil || proto.Unmarshal(kept.message, m) != nil {
		return Answer{}, false
	}
	a := Answer{Answer: actors.Answer{Value: value}, Source: FromFormer, AsOf: kept.at}
	a.Head.Sequence = kept.sequence
	return a, true
}

// Forget drops what the gateway answered about a customer, who was removed for good.
func (f *Fallback) Forget(customer string) { f.former.forget(customer) }

// forget drops all answers about a customer.
func (f *formerAnswers) forget(customer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	prefix := customer + "\x00"
	for _, key := range f.all.Keys() {
		if strings.HasPrefix(key, prefix) {
			f.all.Remove(key)
		}
	}
}

// usage returns the bytes that answers take.
func (f *formerAnswers) usage() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}
