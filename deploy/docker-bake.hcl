# The image for both platforms: VERSION=v1.2.3 docker buildx bake -f deploy/docker-bake.hcl --push
variable "VERSION" {
  default = "dev"
}
variable "REVISION" {
  default = ""
}
variable "CREATED" {
  default = ""
}
# Where the image is pushed to.
variable "IMAGE" {
  default = "licensed"
}

group "default" {
  targets = ["licensed"]
}

target "licensed" {
  context    = "."
  dockerfile = "deploy/Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${IMAGE}:${VERSION}"]
  args = {
    VERSION  = VERSION
    REVISION = REVISION
    CREATED  = CREATED
  }
}
