package cassandra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

const (
	// A name is taken for good, or for as long as the segment lives: TTL 0 is forever.
	insertName = `INSERT INTO segment_names (bucket, name, id, chunks, size, checksum, expires)
		VALUES (?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS USING TTL ?`
	selectName  = `SELECT id, chunks, size, checksum FROM segment_names WHERE bucket = ? AND name = ?`
	selectNames = `SELECT name FROM segment_names WHERE bucket = ? AND name > ? LIMIT ?`
	deleteName  = `DELETE FROM segment_names WHERE bucket = ? AND name = ? IF id = ?`

	insertChunk  = `INSERT INTO segment_chunks (id, chunk, data) VALUES (?, ?, ?) USING TTL ?`
	selectChunks = `SELECT chunk, data FROM segment_chunks WHERE id = ?`
	deleteChunks = `DELETE FROM segment_chunks USING TIMESTAMP ? WHERE id = ?`
)

const (
	// nameBuckets is the number of partitions that names are spread over. It is part of the schema.
	nameBuckets = 128
	// chunkBytes is the largest chunk: some of them fit into Cassandra's limits comfortably.
	chunkBytes = 256 << 10
	// expiryGrace is the time that segments are kept beyond what was asked: clocks differ.
	expiryGrace = time.Hour
	// maxTimeToLive is Cassandra's limit, 20 years; what is to be kept longer is kept forever.
	maxTimeToLive = 20 * 365 * 24 * time.Hour
	// archiveReads is the number of chunks in a page of an answer, and of buckets of
	// names that are asked for at a time.
	archiveReads = 16
)

// Archive is the archive tier on Cassandra: segments in a keyspace that has the [ArchiveSchema], best of
// a cluster with large disks. It is safe for concurrent use.
//
// A name is taken by compare-and-set before the first byte is written, so it never has two contents, and
// what a crash leaves behind is listed by Segments. Segments that expire are dropped by Cassandra.
type Archive struct {
	*keyspace
	nameLocks locks
}

var _ persistence.Archive = (*Archive)(nil)

// OpenArchive opens the archive in the options' keyspace. Errors: as Open.
func OpenArchive(ctx context.Context, o Options) (*Archive, error) {
	k, _, err := openKeyspace(ctx, o, ArchiveSchema)
	if err != nil {
		return nil, fmt.Errorf("cassandra archive: %w", err)
	}
	return &Archive{keyspace: k, nameLocks: newLocks(nameBuckets)}, nil
}

// segment is a row of segment_names: how a reader knows that it has read all of a
// segment.
type segment struct {
	// The chunks are stored under an id and not under the name. Two attempts to put a
	// segment, of which one was told that the name is taken, therefore never mix their
	// chunks.
	id gocql.UUID
	// Number of chunks, and the bytes and checksum of all of them together. A segment
	// whose put was interrupted has fewer chunks than its row says.
	chunks   int
	size     int64
	checksum uint32
}

// nameBucket returns the partition of a name. Without buckets, all names would be one
// partition of Cassandra, which grows without bound; with one partition a name, they
// could not be listed in order without a scan of all nodes.
func nameBucket(name string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return int(h.Sum32() % nameBuckets)
}

// timeToLive returns the TTL of a segment's rows in seconds, at least [expiryGrace]; 0 is
// forever. Cassandra counts the TTL from the clock of the coordinator, and expires comes
// from this machine's.
func timeToLive(now, expires time.Time) int {
	if expires.IsZero() {
		return 0
	}
	d := max(0, expires.Sub(now)) + expiryGrace
	if d > maxTimeToLive {
		return 0
	}
	return int(d / time.Second)
}

// PutSegment implements persistence.Archive.
func (a *Archive) PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	if err := a.begin(); err != nil {
		return fmt.Errorf("put segment %s: %w", name, err)
	}
	defer a.end()
	if err := a.putSegment(ctx, name, data, expires); err != nil {
		return fmt.Errorf("put segment %s: %w", name, err)
	}
	return nil
}

// putSegment takes the name and writes the chunks. A failure between the two leaves a
// name with missing chunks: readers find it corrupt, and it is put again under another
// name by the archiver.
func (a *Archive) putSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	chunks := slices.Collect(slices.Chunk(data, chunkBytes))
	seg := segment{
		id:       gocql.UUID(persistence.NewIncarnation()),
		chunks:   len(chunks),
		size:     int64(len(data)),
		checksum: wire.Checksum(data),
	}
	ttl := timeToLive(time.Now(), expires)
	var until any
	if !expires.IsZero() {
		until = expires
	}
	bucket := nameBucket(name)
	// Only one compare-and-set of this process contends for a bucket at a time. Paxos
	// would make the others fail and retry.
	err := a.nameLocks.with(ctx, bucket, func() error {
		applied, _, err := a.session.compareAndSet(ctx, insertName, bucket, name, seg.id, seg.chunks, seg.size,
			int32(seg.checksum), until, ttl)
		if err == nil && !applied {
			err = persistence.ErrExists
		}
		return err
	})
	if err != nil {
		// With an unknown outcome, too, no chunk is written: the caller cannot use the
		// name any more, since it may be taken.
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(archiveReads)
	for i, chunk := range chunks {
		g.Go(func() error {
			// The same chunk under the same id may be written twice, so the driver may
			// repeat it at another node.
			err := a.session.Query(insertChunk, seg.id, i, chunk, ttl).WithContext(ctx).Idempotent(true).
				RetryPolicy(readRetry{}).Exec()
			if err != nil {
				return fmt.Errorf("%w: chunk %d: %w", persistence.ErrUnknownOutcome, i, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// ReadSegment implements persistence.Archive.
func (a *Archive) ReadSegment(ctx context.Context, name string) ([]byte, error) {
	if err := a.begin(); err != nil {
		return nil, fmt.Errorf("read segment %s: %w", name, err)
	}
	defer a.end()
	seg, err := a.segment(ctx, name)
	var data []byte
	if err == nil {
		data, err = a.readChunks(ctx, seg)
	}
	if err != nil {
		return nil, fmt.Errorf("read segment %s: %w", name, err)
	}
	return data, nil
}

// segment reads the row of a name. Errors: ErrNotFound, ErrUnavailable.
func (a *Archive) segment(ctx context.Context, name string) (segment, error) {
	var seg segment
	var checksum int32
	err := a.session.read(ctx, selectName, nameBucket(name), name).Scan(&seg.id, &seg.chunks, &seg.size, &checksum)
	if err != nil {
		return segment{}, readError(err)
	}
	seg.checksum = uint32(checksum)
	return seg, nil
}

// readChunks reads the content of a segment and checks it against its row. A page of the
// answer has [archiveReads] chunks, 4 MiB.
func (a *Archive) readChunks(ctx context.Context, seg segment) ([]byte, error) {
	iter := a.session.read(ctx, selectChunks, seg.id).PageSize(archiveReads).Iter()
	var data []byte
	count := 0
	var number int
	// chunk starts as nil for each row: the driver would write into its memory otherwise.
	for chunk := []byte(nil); iter.Scan(&number, &chunk); chunk = nil {
		if number != count {
			break // one is missing; the checksum will tell
		}
		data = append(data, chunk...)
		count++
	}
	if err := iter.Close(); err != nil {
		return nil, readError(err)
	}
	if count != seg.chunks || int64(len(data)) != seg.size || wire.Checksum(data) != seg.checksum {
		return nil, fmt.Errorf("%w: %d of %d chunks, %d of %d bytes",
			persistence.ErrCorrupt, count, seg.chunks, len(data), seg.size)
	}
	return data, nil
}

// DeleteSegment implements persistence.Archive.
func (a *Archive) DeleteSegment(ctx context.Context, name string) error {
	if err := a.begin(); err != nil {
		return fmt.Errorf("delete segment %s: %w", name, err)
	}
	defer a.end()
	seg, err := a.segment(ctx, name)
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	if err == nil {
		// The chunks first: as long as the name is present, a repetition finds the id to
		// delete them by.
		err = a.session.Query(deleteChunks, deletionTime(), seg.id).WithContext(ctx).Idempotent(true).Exec()
	}
	if err == nil {
		_, _, err = a.session.compareAndSet(ctx, deleteName, nameBucket(name), name, seg.id)
	}
	if err != nil {
		return fmt.Errorf("delete segment %s: %w", name, err)
	}
	return nil
}

// Segments implements persistence.Archive.
func (a *Archive) Segments(ctx context.Context, after string, limit int) ([]string, error) {
	if err := a.begin(); err != nil {
		return nil, fmt.Errorf("segments: %w", err)
	}
	defer a.end()
	// The driver would only find out after the first buckets were asked.
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("segments: %w", readError(err))
	}
	if limit <= 0 {
		return nil, nil
	}
	// Each bucket is in the order of names. The limit applies to each, since all of the
	// names may be in one.
	var found [nameBuckets][]string
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(archiveReads)
	for bucket := range nameBuckets {
		g.Go(func() error {
			iter := a.session.read(ctx, selectNames, bucket, after, limit).PageSize(pageRows).Iter()
			for name := ""; iter.Scan(&name); {
				found[bucket] = append(found[bucket], name)
			}
			if err := iter.Close(); err != nil {
				return readError(err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("segments: %w", err)
	}
	// At most nameBuckets times limit names are in memory, to return limit of them.
	names := slices.Concat(found[:]...)
	slices.SortFunc(names, cmp.Compare[string])
	return names[:min(limit, len(names))], nil
}

// EraseSegments implements persistence.Archive. Cassandra drops the bytes from its files when it compacts them, after
// the gc_grace_seconds of the tables.
func (a *Archive) EraseSegments(ctx context.Context, aggregate string) (int, error) {
	return persistence.EraseSegmentsOneByOne(ctx, a, aggregate)
}
