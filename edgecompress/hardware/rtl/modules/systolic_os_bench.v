`timescale 1ns / 1ps
// Runs @PRODUCTS product(s) of @M x @K by @K x @N, counts cycles, checks every output.
// Before that it begins the first product and resets the array at its first result.
module systolic_os_bench;
    localparam ROWS = @ROWS;
    localparam COLUMNS = @COLUMNS;
    localparam ACT_BITS = @ACT_BITS;
    localparam WEIGHT_BITS = @WEIGHT_BITS;
    localparam SUM_BITS = @SUM_BITS;
    localparam USE_DSP = @USE_DSP;
    localparam ADDRESS_BITS = @ADDRESS_BITS;
    localparam PRODUCTS = @PRODUCTS;
    localparam INNER_COUNT = @K;
    localparam ROW_FOLDS = @ROW_FOLDS;
    localparam COLUMN_FOLDS = @COLUMN_FOLDS;
    localparam WEIGHT_WORDS = INNER_COUNT * COLUMN_FOLDS;
    localparam ACT_WORDS = INNER_COUNT * ROW_FOLDS;
    localparam SUM_WORDS = ROWS * ROW_FOLDS * COLUMN_FOLDS;
    localparam EXPECTED_CYCLES = @EXPECTED_CYCLES;  // of all products, by the cost model
    localparam MOST_CLOCKS = 4 * EXPECTED_CYCLES + 1000;  // for one

    // Addresses are wider than the memories are deep; integers are wider than both. A word that is
    // read where it is written has the new value, so that the memory is written at once.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    /* verilator lint_off BLKSEQ */

    reg clock = 1'b0, reset = 1'b1, start = 1'b0;
    always #1 clock = ~clock;

    // A word of each memory is one row for all lanes of the array.
    reg [COLUMNS*WEIGHT_BITS-1:0] weights  [0:PRODUCTS*WEIGHT_WORDS-1];
    reg [ROWS*ACT_BITS-1:0]       acts     [0:PRODUCTS*ACT_WORDS-1];
    reg [COLUMNS*SUM_BITS-1:0]    biases   [0:PRODUCTS*COLUMN_FOLDS-1];
    reg [COLUMNS*SUM_BITS-1:0]    expected [0:PRODUCTS*SUM_WORDS-1];
    reg [COLUMNS*SUM_BITS-1:0]    sums     [0:SUM_WORDS-1];

    wire                            done;
    wire [ROWS-1:0]                 act_read;
    wire [ROWS*ADDRESS_BITS-1:0]    act_address;
    wire [COLUMNS-1:0]              weight_read, result_valid;
    wire [COLUMNS*ADDRESS_BITS-1:0] weight_address, result_address;
    wire [COLUMNS*SUM_BITS-1:0]     result_data;
    reg  [COLUMNS*WEIGHT_BITS-1:0]  weight_data;
    reg  [ROWS*ACT_BITS-1:0]        act_data;

    systolic_os #(
        .ROWS(ROWS), .COLUMNS(COLUMNS), .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS),
        .SUM_BITS(SUM_BITS), .USE_DSP(USE_DSP), .ADDRESS_BITS(ADDRESS_BITS)
    ) array (
        .clock(clock), .reset(reset), .start(start),
        .inner_count(INNER_COUNT[ADDRESS_BITS-1:0]),
        .row_folds(ROW_FOLDS[ADDRESS_BITS-1:0]),
        .column_folds(COLUMN_FOLDS[ADDRESS_BITS-1:0]),
        .done(done),
        .weight_read(weight_read), .weight_address(weight_address), .weight_data(weight_data),
        .act_read(act_read), .act_address(act_address), .act_data(act_data),
        .result_valid(result_valid), .result_address(result_address), .result_data(result_data)
    );

    integer product, lane, at, word, errors, cycles, clocks, elapsed, left;
    reg     operand;  // one is at the array for the first time after start
    reg     ended;    // the product before
    reg     active;   // after a reset

    // The memories: data in the cycle after the read. The bias of a column, which takes in the
    // zero point, is added to a sum on its way out.
    always @(posedge clock) begin
        for (lane = 0; lane < COLUMNS; lane = lane + 1)
            if (result_valid[lane])
                sums[result_address[lane*ADDRESS_BITS +: ADDRESS_BITS]][lane*SUM_BITS +: SUM_BITS]
                    = result_data[lane*SUM_BITS +: SUM_BITS]
                    + biases[product*COLUMN_FOLDS
                             + result_address[lane*ADDRESS_BITS +: ADDRESS_BITS]/(ROWS*ROW_FOLDS)]
                            [lane*SUM_BITS +: SUM_BITS];
        for (lane = 0; lane < ROWS; lane = lane + 1)
            if (act_read[lane]) begin
                at = product*ACT_WORDS + act_address[lane*ADDRESS_BITS +: ADDRESS_BITS];
                act_data[lane*ACT_BITS +: ACT_BITS] <= acts[at][lane*ACT_BITS +: ACT_BITS];
            end
        for (lane = 0; lane < COLUMNS; lane = lane + 1)
            if (weight_read[lane]) begin
                at = product*WEIGHT_WORDS + weight_address[lane*ADDRESS_BITS +: ADDRESS_BITS];
                weight_data[lane*WEIGHT_BITS +: WEIGHT_BITS] <=
                    weights[at][lane*WEIGHT_BITS +: WEIGHT_BITS];
            end
    end

    // Cycles from the first operand in to the last result out.
    always @(posedge clock) begin
        if (result_valid != 0) left <= elapsed;
        if (elapsed != 0) elapsed <= elapsed + 1;
        else if (operand) elapsed <= 1;
        if (start) elapsed <= 0;
        operand <= weight_read[0];
    end

@VERDICT
    initial begin
        $readmemh("weights.hex", weights);
        $readmemh("activations.hex", acts);
        $readmemh("biases.hex", biases);
        $readmemh("expected.hex", expected);
        product = 0;
        errors = 0;
        cycles = 0;
        repeat (4) @(negedge clock);
        reset = 1'b0;
        @(negedge clock) start = 1'b1;
        @(negedge clock) start = 1'b0;
        for (clocks = 0; result_valid[0] !== 1'b1 && clocks < MOST_CLOCKS; clocks = clocks + 1)
            @(negedge clock);
        reset = 1'b1;
        @(negedge clock) reset = 1'b0;
        active = 1'b0;
        repeat (ROWS + COLUMNS + 4) begin
            if ((|{done, act_read, weight_read, result_valid}) !== 1'b0) active = 1'b1;
            @(negedge clock);
        end
        if (active) begin
            errors = errors + 1;
            $display("FAIL it is active after a reset");
        end
        ended = 1'b1;
        for (product = 0; product < PRODUCTS && ended; product = product + 1) begin
            for (word = 0; word < SUM_WORDS; word = word + 1) sums[word] = {SUM_BITS*COLUMNS{1'bx}};
            @(negedge clock) start = 1'b1;
            @(negedge clock) start = 1'b0;
            for (clocks = 0; done !== 1'b1 && clocks < MOST_CLOCKS; clocks = clocks + 1)
                @(negedge clock);
            ended = done === 1'b1;
            if (!ended) begin
                errors = errors + 1;
                $display("FAIL product %0d has no end after %0d clocks", product, clocks);
            end
            cycles = cycles + left;
            for (word = 0; word < SUM_WORDS && ended; word = word + 1)
                if (sums[word] !== expected[product*SUM_WORDS + word]) begin
                    errors = errors + 1;
                    $display("FAIL product %0d word %0d: %h, expected %h", product, word,
                             sums[word], expected[product*SUM_WORDS + word]);
                end
        end
        finish;
    end
endmodule
