package dashboard

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// asset is a static file.
type asset struct {
	// content as it is, and in the gzip format.
	content, zipped []byte
	contentType     string
	// sum is that of the content.
	sum string
}

// types of the static files; what is not listed is not served: the templates' sources,
// for instance.
var types = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// loadAssets reads the static files, which are in the program.
func loadAssets() (map[string]asset, error) {
	assets, root := make(map[string]asset), subtree("static")
	return assets, fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		kind, ok := types[path.Ext(name)]
		if !ok {
			return nil
		}
		content, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		// A name stays the same when its content changes, so the tag is the content's.
		sum := sha256.Sum256(content)
		assets[name] = asset{content, zipped(content), kind, hex.EncodeToString(sum[:8])}
		return nil
	})
}

// serve answers with the file, or says that the browser's copy is the same.
func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	content, etag := a.content, a.sum
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		content, etag = a.zipped, a.sum+"-gzip"
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Etag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// zipped returns content in the gzip format.
func zipped(content []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(content)
	if err = errors.Join(err, z.Close()); err != nil {
		panic(err) // A buffer takes everything.
	}
	return b.Bytes()
}

// attachment returns the header of a download with a name that may have any letters.
func attachment(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, name)
	if v := mime.FormatMediaType("attachment", map[string]string{"filename": clean}); v != "" {
		return v
	}
	return "attachment"
}
