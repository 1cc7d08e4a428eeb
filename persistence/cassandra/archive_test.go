package cassandra

import (
	"context"
	"testing"
	"time"

	"github.com/gocql/gocql"
)

func TestTimeToLive(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	const hour = 3600
	for _, tt := range []struct {
		expires time.Time
		want    int
	}{
		{time.Time{}, 0},
		{now.Add(-time.Hour), hour}, // long over, for us: kept for the grace all the same
		{now, hour},
		{now.Add(10 * time.Hour), 11 * hour},
		{now.Add(maxTimeToLive - expiryGrace), int(maxTimeToLive / time.Second)},
		{now.Add(maxTimeToLive), 0}, // longer than Cassandra can count
	} {
		if got := timeToLive(now, tt.expires); got != tt.want {
			t.Errorf("expires %v: %d s, want %d", tt.expires, got, tt.want)
		}
	}
}

// TimesToLive returns what is left of the life of a segment's name and of its first chunk, 0 forever.
func TimesToLive(ctx context.Context, o Options, name string) (ofName, ofChunk int, err error) {
	err = withSession(ctx, o, o.Keyspace, func(s *session) error {
		var id gocql.UUID
		if err := s.Query("SELECT id, TTL(size) FROM segment_names WHERE bucket = ? AND name = ?",
			nameBucket(name), name).
			WithContext(ctx).Scan(&id, &ofName); err != nil {
			return err
		}
		return s.Query("SELECT TTL(data) FROM segment_chunks WHERE id = ? AND chunk = 0", id).WithContext(ctx).
			Scan(&ofChunk)
	})
	return ofName, ofChunk, err
}
