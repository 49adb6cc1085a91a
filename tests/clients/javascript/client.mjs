// node client.mjs whoami | list BUCKET PREFIX | read BUCKET KEY: each client is made without any option.
import { GetObjectCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";

const calls = {
  async whoami() {
    const { Arn } = await new STSClient().send(new GetCallerIdentityCommand());
    return `${Arn}\n`;
  },
  async list(Bucket, Prefix) {
    const { Contents } = await new S3Client().send(new ListObjectsV2Command({ Bucket, Prefix }));
    return Contents.map(({ Key }) => `${Key}\n`).join("");
  },
  async read(Bucket, Key) {
    const { Body } = await new S3Client().send(new GetObjectCommand({ Bucket, Key }));
    return Body.transformToString();
  },
};

const [call, ...names] = process.argv.slice(2);
try {
  process.stdout.write(await calls[call](...names));
} catch (error) {
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = 1;
}
