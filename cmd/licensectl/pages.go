package main

// eachPage asks for one page of a list after the other. The function returns the token of the next page, "" after the
// last.
func eachPage(ask func(token string) (next string, err error)) error {
	for token := ""; ; {
		next, err := ask(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
}
