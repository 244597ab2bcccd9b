module portmapper-publish-verdicts

go 1.26

require github.com/docker/go-connections v0.8.2
