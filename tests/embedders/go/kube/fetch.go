package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"hopsk8s"
)

// mostResultBytes is the size of the largest file that ReadFile returns.
const mostResultBytes = 8 << 20

var resultServer = http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (p *pod) ReadFile(ctx context.Context, path string) ([]byte, error) {
	var content []byte
	err := retry(ctx, func(ctx context.Context) (err error) {
		content, err = p.get(ctx, path)
		return err
	})
	if maySucceedLater(err) {
		return nil, &hopsk8s.Error{
			Kind:    hopsk8s.Unavailable,
			Message: fmt.Sprintf("the result server in pod %s did not send the file: %v", p.name, err),
		}
	}
	return content, err
}

func (p *pod) get(ctx context.Context, path string) ([]byte, error) {
	pod := p.known()
	switch {
	case pod.gone:
		return nil, &hopsk8s.Error{Kind: hopsk8s.Gone, Message: fmt.Sprintf("pod %s does not exist any more", p.name)}
	case pod.ip == "":
		return nil, errors.New("the pod has no address yet")
	}
	address := url.URL{Scheme: "http", Host: net.JoinHostPort(pod.ip, strconv.Itoa(serverPort)), Path: "/" + path}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, &hopsk8s.Error{Kind: hopsk8s.Other, Message: err.Error()}
	}
	response, err := resultServer.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch code := response.StatusCode; {
	case code == http.StatusNotFound:
		return nil, fs.ErrNotExist
	case code >= http.StatusInternalServerError:
		return nil, fmt.Errorf("the answer was %s", response.Status)
	case code != http.StatusOK:
		return nil, &hopsk8s.Error{
			Kind:    hopsk8s.Other,
			Message: fmt.Sprintf("the result server answered %s; check that the result is a regular file", response.Status),
		}
	case response.ContentLength < 0:
		return nil, errors.New("the answer has no length")
	case response.ContentLength > mostResultBytes:
		return nil, &hopsk8s.Error{Kind: hopsk8s.TooLarge, Size: uint64(response.ContentLength), Limit: mostResultBytes}
	}
	content := make([]byte, response.ContentLength)
	_, err = io.ReadFull(response.Body, content)
	return content, err
}
